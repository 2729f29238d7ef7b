"""The control topics: which records decide, who may sign them, how they are read, checked and folded."""
