"""What do flags leave open, and how is it chosen?"""
