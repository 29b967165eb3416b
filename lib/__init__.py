"""The science of the companion: small modules that the notebooks call. Importing this package loads nothing."""
