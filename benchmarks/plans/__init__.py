"""What window plans and sampling do to scores and rankings."""
