"""The commands, a module for each: what it is given, what it asks and shows. `cli.command_table` names them all."""
