"""What is wrong with a configuration and what it depends on, and how to mend it. Changes nothing, sends nothing."""
