"""Tests of the scripts for the browser, run with Node.js."""
