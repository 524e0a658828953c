"""What train.py and evaluate.py do: functions of command-line options, imported when asked for."""
