"""What actions written in Python import. It needs nothing but Python 3.9: no other part of Attune, and no package."""
