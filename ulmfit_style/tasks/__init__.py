"""The kinds of labelled data. A new kind is one file here and its YAML in `conf/task/`."""
