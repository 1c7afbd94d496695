"""How well passages are found: real pages of manuals, in English and Russian, and questions to them."""
