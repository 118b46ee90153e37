"""What a bundle's figures do not say: false alarms, failure signatures, order, calibration."""
