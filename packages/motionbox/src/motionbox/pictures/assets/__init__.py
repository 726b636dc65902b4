"""Files that the HTML report is put together from."""
