"""Tests of the Helm chart, and the generator of its made parts."""
