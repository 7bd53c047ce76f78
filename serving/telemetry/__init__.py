"""What the serving process reports about itself."""
