"""What a page of a search is made of, without a search."""

from __future__ import annotations

import numpy as np


def search(name: str = "unipc:order=2 on karras", rows: int = 20) -> dict:
    value = {"value": 0.03, "low": 0.02, "high": 0.04}
    verdict = {
        "metric": "error",
        "noises": 8,
        "default": name,
        "winner": value,
        "before": {"value": 0.08, "low": 0.07, "high": 0.09},
        "gain": {"value": 2.6, "low": 2.0, "high": 3.0},
        "better": True,
        "equal_calls": 9.6,
        "equal_low": 8.0,
        "equal_high": 10.0,
        "most": 12,
        "default_values": {"6": 0.08, "8": 0.05, "12": 0.02},
        "kid": None,
        "sentence": f"it is better than {name}",
        "equivalence": "9.6 calls",
    }
    candidates = [
        {
            "name": f"{name} {i}",
            "value": 0.04 + 0.01 * i,
            "noises": 8,
            "predicted": 0.05 + 0.01 * i if i else None,
            "levels": [None, 5.0, 1.0 + 0.1 * i, 0.2, 0.0],
            "winner": i == 0,
            "default": i == 1,
        }
        for i in range(rows)
    ]
    words = dict.fromkeys(("model", "chosen", "command", "use", "python"), name)
    numbers = {"calls": 6, "spent": 1900, "budget": 2000, "reference_steps": 30}
    return {
        **words,
        **numbers,
        "prompts": [name] * 5,
        "versions": {"fewstep": "0"},
        "verdict": verdict,
        "rows": candidates,
    }


PICTURES = [(name, "6 calls", np.zeros((4, 32, 32, 3), np.uint8)) for name in ("best found", "default", "solution")]
