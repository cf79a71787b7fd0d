"""What the pages share: page table and guard, boot, sidebar, caching, pickers, live loops, captions and downloads."""
