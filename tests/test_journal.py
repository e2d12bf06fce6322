"""The journal of a long computation: what it keeps, and when it trusts what is kept."""

from __future__ import annotations

import torch

from fewstep.journal import Journal


def test_another_model_is_noticed_though_the_first_entry_is_damaged(tmp_path):
    """What is damaged says nothing of the model: the first entry that can be read does."""
    old, new = (torch.tensor([1.0]),), (torch.tensor([5.0]),)
    first = Journal(tmp_path)
    first("a", lambda: old)
    before = set(tmp_path.iterdir())
    first("b", lambda: old)
    for path in before:
        path.write_bytes(b"junk")
    again = Journal(tmp_path)
    assert [float(again(key, lambda: new)[0]) for key in ("a", "b")] == [5.0, 5.0]


def test_what_was_kept_is_read_after_one_comparison(tmp_path):
    made = []

    def make():
        made.append(1)
        return (torch.tensor([1.0]),)

    for _ in range(2):
        journal = Journal(tmp_path)
        for key in ("a", "b", "c"):
            journal(key, make)
    assert len(made) == 4
