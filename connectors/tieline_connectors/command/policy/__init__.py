"""Where a command is authorized: the policy file, its rules and limits; pure."""
