#!/bin/sh
# The parameters come as one JSON object on stdin: {"name": "world"}.
name=$(sed -n 's/.*"name" *: *"\([^"]*\)".*/\1/p')
echo "hello, ${name:-world}"
