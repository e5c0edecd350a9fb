"""The meaning of an attempt's answer: delivered, to be retried and when, or failed. Pure, and independent of the
protocol's JSON.
"""
