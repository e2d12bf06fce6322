"""``python -m fewstep.cli``."""

from fewstep.cli import main

if __name__ == "__main__":
    main()
