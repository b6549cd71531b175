WANTED = "b"
