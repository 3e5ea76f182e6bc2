"""Files: atomic writes, one module a kind of file, and the layouts of other projects."""
