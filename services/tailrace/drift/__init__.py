"""drift: has the stream of a version's requests and answers moved away from what it was trained on?"""
