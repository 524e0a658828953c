"""What people read: tables for terminal, page and Markdown; figures; one self-contained page."""
