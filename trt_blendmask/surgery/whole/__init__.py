"""Graphs that go on behind the heads: a whole network with RoiAlign inside, or the blender alone.

wiring and hoist make the graph walkable; core and core_proof find RoIAlign plus blend; inner_heads finds the raw head
inside; own_selection reads what the file selects, keep_own keeps it, selection_proof proves ours equal where it takes
over; end_to_end cuts a whole network back to its heads, tail_only replaces a blender alone.
"""
