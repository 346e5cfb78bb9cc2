"""Alarms: what fails is told to people, once, and what works again too; what cannot be sent is kept and sent later.

The doors are `addresses`, `changes`, `ledger` and `delivery`. `services` alone knows Apprise.
"""
