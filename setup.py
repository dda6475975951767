"""The page of a package index: README.md without what leads nowhere there, pictures and links of the repository."""

import re
from pathlib import Path

from setuptools import setup

text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+(\*.*\*\n+)?", "", text, flags=re.MULTILINE)  # with its caption
text = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)

setup(long_description=text, long_description_content_type="text/markdown")
