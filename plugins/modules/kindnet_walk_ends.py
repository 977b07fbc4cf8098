#!/usr/bin/python
DOCUMENTATION = r"""
module: kindnet_walk_ends
short_description: x
"""
