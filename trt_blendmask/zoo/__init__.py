"""The published BlendMask models: what there is (`models`), and how one is fetched (`fetch`)."""
