"""How the pictures of `trt_blendmask.synthetic` are made.

From small to large: `relief` (profiles and outlines), `shapes` and `rods` (the ten kinds of parts), `shading` (light
and materials), `parts` (one part, rendered), `layout` (a still scene) and `traffic` (a moving belt), `belt` (what they
lie on), `camera` (what a sensor makes of it).
"""
