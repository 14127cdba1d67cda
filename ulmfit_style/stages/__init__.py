"""The stages of the chain: functions from a config to a finished directory."""
