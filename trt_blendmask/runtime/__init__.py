"""From a source to masks: source, letterbox, model, overlay, sinks, and the pipeline that joins them."""
