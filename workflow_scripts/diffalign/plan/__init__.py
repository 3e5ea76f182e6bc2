"""The plan: which files a study is, one module a stage."""
