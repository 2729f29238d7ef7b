"""Who may sign what decides: keys, whose signatures count, and signatures over records."""
