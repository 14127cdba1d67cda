"""From files to rows and documents."""
