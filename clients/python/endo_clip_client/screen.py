"""A window for pictures, of Tk, which comes with Python."""

from typing import Any

from endo_clip_client.errors import ClientError

__all__ = ["Screen"]


class Screen:
    """Shows one picture after another.

    Attributes:
        is_open: until the window is closed, or q or Escape is pressed.
    """

    def __init__(self, title: str) -> None:
        """Open a window.

        Raises:
            ClientError: there is no Tk, or no screen.
        """
        try:
            import tkinter
        except ImportError as error:
            raise ClientError(
                "a window needs Tk\nWhat to do: install it (Debian: python3-tk), or --out FILE.mp4"
            ) from error
        try:
            self._window = tkinter.Tk()
        except tkinter.TclError as error:
            raise ClientError(
                f"no window can be opened ({error})\nWhat to do: --out FILE.mp4 writes the overlay "
                "into a file"
            ) from None
        self._photo = tkinter.PhotoImage
        self._shown: Any = None
        self.is_open = True
        self._window.title(title)
        self._label = tkinter.Label(self._window, borderwidth=0)
        self._label.pack()
        self._window.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("q", "<Escape>"):
            self._window.bind(key, lambda _: self._close())

    def show(self, picture: Any) -> None:
        """Show a picture of Pillow's, made smaller where the screen is."""
        most = (self._window.winfo_screenwidth(), self._window.winfo_screenheight())
        if picture.width > most[0] or picture.height > most[1]:
            picture.thumbnail(most)
        head = b"P6 %d %d 255\n" % picture.size
        self._shown = self._photo(data=head + picture.tobytes(), format="PPM")
        self._label.configure(image=self._shown)
        self._window.update()

    def close(self) -> None:
        """Close the window."""
        self._window.destroy()

    def _close(self) -> None:
        self.is_open = False
