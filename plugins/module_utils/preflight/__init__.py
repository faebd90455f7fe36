"""Checks of everything a user can get wrong, made before the first host is touched.

Everything here is a pure function of what it is given (files, values, facts): the action plugin `preflight` collects
the input and prints the lines, the tests call the functions directly.
"""
