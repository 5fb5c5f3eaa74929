"""Read the dump files of sources as documents: one module per source, interface and registry in `base`."""
