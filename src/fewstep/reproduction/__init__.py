"""The papers' tables as files: which network, which sampler, which reference, and what the paper found."""

from fewstep.reproduction.files import Wanted, checked_files
from fewstep.reproduction.reference import check_reference
from fewstep.reproduction.table import NAMES, Row, Table, named

__all__ = ["NAMES", "Row", "Table", "Wanted", "check_reference", "checked_files", "named"]
