WANTED = 'b'
