"""How fast models are here, where the time goes and what it costs: `trt-blendmask profile`."""
