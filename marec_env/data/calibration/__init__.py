"""Moved: calibration is :mod:`agents.studies.calibration`; this place stays for one version."""
