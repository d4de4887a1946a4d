"""From a file that may be anything to a graph with a checked raw head.

In the order of the work: load (external, merge_weights) -> fold_shapes, upsample, opset, read_graph -> ends, recognise,
raw_head, or looks_like for the refusal -> group_norm and parts, which give units and nodes their names.
"""
