"""What is made of the project's lock files: the list of licences, the bill of materials."""
