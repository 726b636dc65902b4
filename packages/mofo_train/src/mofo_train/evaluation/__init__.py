"""Test clips -> predictions -> figures; errors of a pretrained model on clips it has not seen."""
