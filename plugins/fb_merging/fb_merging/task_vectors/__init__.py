"""Methods that combine task vectors entry by entry."""
