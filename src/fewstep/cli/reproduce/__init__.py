"""``fewstep reproduce``: a table of a paper, sampled and measured."""
