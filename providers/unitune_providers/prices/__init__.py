"""What vendors say of their own prices and dates, read by machine when the user asks for it."""
