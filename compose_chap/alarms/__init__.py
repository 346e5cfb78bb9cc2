"""Alarms: people hear what fails, once, and what works again too; what cannot be sent is kept and sent later.

The doors are `addresses`, `changes`, `ledger` and `delivery`. `services` alone knows Apprise.
"""
