"""What a model is trained by: one file a template, and the table of them."""
