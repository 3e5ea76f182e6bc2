"""Files of other projects, read and written, one module a layout.

`feature_tables` reads features of any layout and `latent_folders` latents; both name their layouts in a table. Rows are
joined on names, never on their order, and nothing is unpickled freely.
"""
