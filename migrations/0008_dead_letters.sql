-- What becomes of an event whose delivery to the rule matcher was given up, and then discarded.

ALTER TABLE attune.event_match
    -- Why no rule was asked; null: the rules were.
    ADD COLUMN note text;
