"""Reading and writing: files, pictures, videos, tables, locks."""
